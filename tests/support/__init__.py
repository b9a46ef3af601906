"""What tests share: requirements of the machine, and servers that live as long as the test run."""
