-- How much a service's workers may keep on disk, and what happens then.
ALTER TABLE services
    ADD COLUMN spool_limit        bigint  NOT NULL DEFAULT 1073741824,
    ADD COLUMN spool_full         text    NOT NULL DEFAULT 'drop_oldest',
    -- Hold each answer's end until its record is on disk.
    ADD COLUMN durable_before_end boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT services_spool_limit CHECK (spool_limit > 0),
    ADD CONSTRAINT services_spool_full CHECK (spool_full IN ('drop_oldest', 'block'));
