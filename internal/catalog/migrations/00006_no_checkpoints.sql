-- +goose Up

-- What a copy goes on from lies in its target. How much that is, its task's progress says.
ALTER TABLE tasks DROP COLUMN checkpoint;
