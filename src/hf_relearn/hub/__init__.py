"""What leaves this machine for the Hub: gathering a model's files, and uploading them."""
