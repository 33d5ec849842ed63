//! The authority as workers and clients meet it.
