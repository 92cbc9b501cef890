untrusted comment: verify with erin.pub
RWTgMRQKWstuJgCm9N+/mdkfGIX7KngxI3frqdUFP2qDEIHTAuy3jiAp96D8wBxZ6a7NVb8m+xFrxui1u9IOkcLRrZw0Sa70vAQ=
# disk.qcow2: 123 bytes
SHA256 (disk.qcow2) = 1044dec7206e8d7c9fbb4ae8f766668406d2567fc7fc1a160a9d4700fcf8f8e9
- a line that begins with a dash
-----BEGIN PGP SIGNED MESSAGE-----
--- trailing blanks 	
d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa  other.qcow2
