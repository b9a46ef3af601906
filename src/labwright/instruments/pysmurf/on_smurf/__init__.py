"""What a pysmurf controller has done in a child process, where pysmurf and sodetlib are imported and may crash."""
