-- +goose Up

-- When it was last said of a machine that it has gone for good, or is back; 0: never.
ALTER TABLE machines ADD COLUMN retired_decided_at BIGINT NOT NULL DEFAULT 0;
