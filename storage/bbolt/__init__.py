"""etcd's database file (bbolt), read and written: the form in which a store leaves one server for another."""
