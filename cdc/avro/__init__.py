"""Avro on the wire: schemas of rows and envelopes, the encoder of events and their decoder. The only room that knows fastavro."""
