"""Events on their way: wire form, validation, the Kafka door, dead letters, the local broker, the lake."""
