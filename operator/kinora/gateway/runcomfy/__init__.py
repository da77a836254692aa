"""The RunComfy dialect: /v1/models and /v1/requests, as its document has it. Knows no other dialect."""
