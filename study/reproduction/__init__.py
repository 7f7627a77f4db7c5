"""A recorded trial trained again and compared with the record, here or on another machine."""
