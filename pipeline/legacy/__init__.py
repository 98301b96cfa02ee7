"""The older stores: migrated, verified, rolled back."""
