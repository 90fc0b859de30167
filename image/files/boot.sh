#!/bin/bash
# The boot stage of a local node: runs as the first process of its namespaces, makes the root from the measured
# image and hands over to systemd. The launcher measures this file into PCR 4.
# Arguments: node name, node folder, image file, folder for /run/asterism, folder with the unpacked initrd stage, and
# the state disk's block device where the node can map it.
set -eu
name=$1 folder=$2 image=$3 runtime=$4 initrd=$5 disk=${6-}
root=$folder/root

mount --make-rprivate /
hostname "$name"
mkdir -p "$folder/lower" "$root" "$folder/upper"
mount -t squashfs -o loop,ro "$image" "$folder/lower"
# What is changed in the root is gone after this boot: nothing that was not measured is found by the next.
mount -t tmpfs -o mode=755,size=1g tmpfs "$folder/upper"
mkdir "$folder/upper/files" "$folder/upper/work"
mount -t overlay overlay -o "lowerdir=$folder/lower,upperdir=$folder/upper/files,workdir=$folder/upper/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
device() { mknod -m "$2" "$root/dev/$1" "${5-c}" "$3" "$4"; }
# The same device as one of the host's.
same() { device "$1" 600 "$(stat -c %Hr "$2")" "$(stat -c %Lr "$2")" "$3"; }
device null 666 1 3
device zero 666 1 5
device full 666 1 7
device random 666 1 8
device urandom 666 1 9
device tty 666 5 0
# The host's console is not the node's: what systemd would write there is in its journal.
device console 600 1 3
device kmsg 600 1 11
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"

mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/asterism" "$root/run/state"
mount --bind "$runtime" "$root/run/asterism"
if [ -n "$disk" ]; then
  # The disk-mapper maps and mounts the volume.
  mkdir "$root/dev/mapper"
  same mapper/control /dev/mapper/control c
  same state-disk "$disk" b
else
  # A folder stands in for the volume.
  mount --bind "$folder/state-disk.img" "$root/run/asterism/state-disk.img"
  mkdir -p "$folder/state"/{var,kubernetes,etccni,opt,bin,images}
  [ -d "$folder/state/var/lib" ] || cp -a "$root/var/." "$folder/state/var/"
  mount --bind "$folder/state" "$root/run/state"
  mount --bind "$folder/state/var" "$root/var"
  mount --bind "$folder/state/kubernetes" "$root/etc/kubernetes"
  mount --bind "$folder/state/etccni" "$root/etc/cni"
  mount --bind "$folder/state/opt" "$root/opt"
fi
mount --bind "$initrd" "$root/usr/lib/asterism/bin"
mount -o remount,bind,ro "$root/usr/lib/asterism/bin"
# The node's name for itself in its log and to Kubernetes, the same after each boot.
[ -s "$folder/machine-id" ] || tr -d - < /proc/sys/kernel/random/uuid > "$folder/machine-id"
cp "$folder/machine-id" "$root/etc/machine-id"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" > "$root/etc/hosts"
echo "$name" > "$root/etc/hostname"
cp "$runtime/resolv.conf" "$root/etc/resolv.conf"

# Each cgroup hierarchy of the host, seen from this node's own place in it.
mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
  while IFS=: read -r _ controllers _; do
    case $controllers in
      '') where=unified type=cgroup2 options=rw ;;
      name=*) where=${controllers#name=} type=cgroup options=none,$controllers ;;
      *) where=$controllers type=cgroup options=$controllers ;;
    esac
    mkdir -p "$root/sys/fs/cgroup/$where"
    mount -t "$type" -o "$options" cgroup "$root/sys/fs/cgroup/$where"
  done < /proc/self/cgroup
fi

# Kernel settings are the host's: read-only here, but for the network's, which are the node's own. The kubelet finds
# the values that it wants in files over the ones it checks, so that it does not have to change the host.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t proc proc "$root/run/asterism-proc" 2> /dev/null || { mkdir "$root/run/asterism-proc"; mount -t proc proc "$root/run/asterism-proc"; }
mount --bind "$root/run/asterism-proc/sys/net" "$root/proc/sys/net"
umount -l "$root/run/asterism-proc"
rmdir "$root/run/asterism-proc"
mkdir "$root/run/sysctl"
pretend() {
  [ -e "$root/proc/sys/$1" ] || return 0
  echo "$2" > "$root/run/sysctl/${1//\//_}"
  mount --bind "$root/run/sysctl/${1//\//_}" "$root/proc/sys/$1"
}
pretend kernel/panic 10
pretend kernel/panic_on_oops 1
pretend kernel/keys/root_maxkeys 1000000
pretend kernel/keys/root_maxbytes 25000000
pretend vm/overcommit_memory 1
pretend vm/panic_on_oom 0
# The kernel has one id for the machine's boot; a node boots when it does, and the kubelet tells a reboot by it.
pretend kernel/random/boot_id "$(cat /proc/sys/kernel/random/uuid)"

mkdir "$root/run/host"
cd "$root"
pivot_root . run/host
cd /
umount -l /run/host
rmdir /run/host
exec env -i container=asterism PATH=/run/state/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system
