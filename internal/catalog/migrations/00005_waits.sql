-- +goose Up

-- What a session waits for, as JSON: its kind, and how its target is; empty while it does not wait. The reason says it in words.
ALTER TABLE sessions ADD COLUMN wait TEXT NOT NULL DEFAULT '';
