# Files that every sprite gets its own of when it starts; empty, so that there is something to
# mount over.
root=$1

for name in hostname hosts machine-id resolv.conf; do
    install -m 0644 /dev/null "$root/etc/$name"
done
