-- Bodies that come whole with their exchange (at most 64 KiB together) are kept beside its heads: a row and an index
-- entry less for nearly every exchange. NULL when absent, empty, or in body_chunks, where those are that came in pieces.
ALTER TABLE heads
    ADD COLUMN request_body  bytea,
    ADD COLUMN response_body bytea;
