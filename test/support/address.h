/* address: where a test's servers listen, both ways: a socket in a folder of its own, a free port. */
#pragma once

enum { TEST_ADDRESS = 64 };

/* "unix:/tmp/postern-XXXXXX/s" in a new folder of mode 0700. */
void test_address_unix(char out[TEST_ADDRESS]);
/* Removes the folder with what a server left in it. */
void test_address_remove(const char *unix_address);
/* "127.0.0.1:port" that nobody holds just now. */
void test_address_tcp(char out[TEST_ADDRESS]);
