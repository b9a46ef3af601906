"""Publish by the documented UDP protocol, with the standard library and nothing of ours: N messages back to back."""

import json
import os
import socket
import sys
import time

count, kind = int(sys.argv[1]), sys.argv[2]
payload = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
address = (os.environ.get("SMURFPUB_UDP_HOST", "localhost"), int(os.environ["SMURFPUB_UDP_PORT"]))
head = {"host": socket.gethostname(), "id": os.environ.get("SMURFPUB_ID", "undeclared"), "script": "publish"}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    for number in range(count):
        message = {**head, "time": time.time(), "seq_no": number, "type": kind, "payload": payload}
        out.sendto(json.dumps(message).encode(), address)
