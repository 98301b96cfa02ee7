"""The advise worker: advisory requests become links, also those that came before their run."""
