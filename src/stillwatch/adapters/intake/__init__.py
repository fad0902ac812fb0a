"""What all adapters share: opening files, casting columns, refusing rows, counting what happened."""
