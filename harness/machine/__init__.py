"""The machine a submission runs on: what it is (fingerprint), and what else it did meanwhile
(contamination)."""
