//! Reading from replicas.
