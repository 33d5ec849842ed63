-- What happens when the port of an enabled service stays taken at boot.
ALTER TABLE services
    ADD COLUMN on_port_conflict text NOT NULL DEFAULT 'disable',
    ADD CONSTRAINT services_on_port_conflict CHECK (on_port_conflict IN ('disable', 'retry'));
