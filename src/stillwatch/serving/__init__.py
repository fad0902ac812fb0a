"""What `stillwatch serve` answers, beside the gateway: traffic in, decisions out."""
