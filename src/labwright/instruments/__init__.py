"""Agents for particular instruments, each with its simulator; here the names of those instruments stand."""
