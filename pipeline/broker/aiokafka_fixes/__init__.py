"""All code that depends on private parts of aiokafka 0.14: what it lacks and its faults.

* `tolerant_records`: its parser raises out of the poll at a header name that is not UTF-8
  (`record/default_records.py`, `_read_header`). It can go when names of any bytes are read.
* `streamed_batch`, `decompression`: it unpacks a batch of any size at once (`_maybe_uncompress`).
  They can go when its consumer has a bound.
* `unreadable_batches`: a batch that cannot be read costs the records that the same poll has taken
  from other partitions (`consumer/fetcher.py`, `fetched_records`). It can go when they stay.
* `any_name_batch`: its builder encodes header names strictly. It can go when it takes bytes.
* `installed`: a start that is cancelled leaves its connection open (`client.py`, `bootstrap`), and
  an answer that is let go of keeps its bytes (`consumer/fetcher.py`, `PartitionRecords`). It can go
  when the one is closed, and the other no cycle.
* `clients`, `requests`: its admin client has no method for some requests, and `stop` of its clients
  hangs or ends half-way where no broker answers. They can go when it has them, and it ends.

`tests/broker/aiokafka_fixes` fails where a new version of aiokafka changes one of these.
"""
