"""gRPC: the Open Inference Protocol and health, in front of the routes that answer HTTP."""
