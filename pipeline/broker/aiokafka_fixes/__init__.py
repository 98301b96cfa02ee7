"""What aiokafka cannot read and the broker accepts; each fix names the upstream fact."""
