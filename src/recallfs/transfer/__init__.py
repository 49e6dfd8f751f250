"""Bytes from elsewhere: looked up, downloaded, resumed and verified, within deadlines."""
