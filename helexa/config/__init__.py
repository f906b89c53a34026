"""What can be set: one frozen class per TOML table (`schema`), read strictly (`read`)."""
