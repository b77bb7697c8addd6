# The user, and what makes a shell comfortable.
root=$1

install -d -m 0755 "$root/.sprite" "$root/.sprite/bin"
install -m 0644 path.sh "$root/etc/profile.d/sprite.sh"
cat path.sh >> "$root/etc/zsh/zshenv"
install -m 0644 zshrc "$root/etc/skel/.zshrc"

chroot "$root" groupadd --gid 1001 sprite
chroot "$root" useradd --uid 1001 --gid sprite --create-home --shell /bin/zsh --password '*' \
    --no-log-init -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 sprite

# Rootless containers inside a sprite: their ids must fit into the sprite's own 0..65535.
echo "sprite:2000:60000" | tee "$root/etc/subuid" > "$root/etc/subgid"

install -m 0440 sudoers "$root/etc/sudoers.d/sprite"
chroot "$root" visudo --check --quiet
