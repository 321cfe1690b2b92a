"""The APNs simulator: a server that answers pushes as Apple's would, logs them, and fails on demand.

`rules`, `provider`, `registry` judge a request; `faults` changes the answer; `http2` frames it; `journal` keeps it;
`server` joins them; `control` is for tests.
"""
