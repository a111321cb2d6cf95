-- +goose Up

-- Files of sources that were found broken are remembered where they are read, in the cache folder.
DROP TABLE broken_files;
