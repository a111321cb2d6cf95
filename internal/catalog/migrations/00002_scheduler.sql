-- +goose Up

-- What a session came to, whole, as JSON; empty until it has ended. Whole is 1 if it reads its points whole from their source.
ALTER TABLE sessions ADD COLUMN report TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN whole BIGINT NOT NULL DEFAULT 0;

-- When something other than the schedule asked for an interval that has not begun yet.
ALTER TABLE jobs ADD COLUMN asked_at BIGINT NOT NULL DEFAULT 0;
