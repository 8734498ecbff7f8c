"""What each endpoint family of /v1 accepts, what a request of it can cost, and how it is written for an upstream."""
