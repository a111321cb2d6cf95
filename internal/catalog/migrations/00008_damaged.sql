-- +goose Up

-- Few points are damaged, and they are asked for with each look at how everything stands.
CREATE INDEX points_damaged ON points (edition) WHERE damaged = 1;
