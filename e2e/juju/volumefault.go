package juju

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Lost takes the volume from a running unit.
func (v *volume) Lost(unit string) cluster.Fault {
	return cluster.Fault{
		Name:   fmt.Sprintf("volume %s of %s lost", v.name, unit),
		Units:  []string{unit},
		Inject: func(ctx context.Context) error { return v.Detach(ctx, unit) },
		Heal:   func(ctx context.Context) error { return v.Attach(ctx, unit) },
	}
}

// ReadOnly attaches the volume to a unit anew, for reading. Whether it is marked stays as
// it is.
func (v *volume) ReadOnly(unit string) cluster.Fault {
	return cluster.Fault{
		Name:   fmt.Sprintf("volume %s of %s read-only", v.name, unit),
		Units:  []string{unit},
		Inject: func(ctx context.Context) error { return v.Attach(ctx, unit, cluster.AsReadOnly, cluster.Unmarked) },
		Heal:   func(ctx context.Context) error { return v.Attach(ctx, unit, cluster.Unmarked) },
	}
}

// filler is the directory, in the volume's root, that fills it.
const filler = mountPoint + "/.ccbench-filler"

// fillScript makes files of the sizes $3 and on in the directory $1, each if there is room
// for it, until there is none for one more of the last size. Neither free space nor quota can
// be asked for in a way that holds on every driver, so it tries. A file that was made in part
// goes away at once. What somebody deleted before may come free meanwhile, so it begins
// again, but makes hardly more than $2 bytes: a volume that takes these has no size.
const fillScript = `dir=$1 limit=$2 total=0
shift 2
mkdir -p "$dir" || exit
while :; do
	for size in "$@"; do
		complaint=$(fallocate --length "$size" "$dir/$total" 2>&1) && total=$((total + size)) && continue
		rm -f "$dir/$total"
		case $complaint in *"not supported"*)
			echo "$complaint" >&2
			exit 1
		esac
	done
	fallocate --length "$size" "$dir/room" 2>/dev/null
	left=$?
	rm -f "$dir/room"
	[ $left = 0 ] || exit 0
	if [ $total -gt "$limit" ]; then
		echo "there is still room after $total bytes: does its pool keep to a size?" >&2
		exit 1
	fi
done`

// Full fills the volume; Units are those that have it when Full is called. It takes a
// volume that was made with a size: another one would be as large as its pool.
func (v *volume) Full(leaving int64) cluster.Fault {
	c := v.cluster
	inject := func(ctx context.Context) error {
		if v.size == 0 {
			return errors.New("it was made without a size")
		}
		instances, err := v.writableIn(ctx)
		if err != nil {
			return err
		}
		script := []string{"sh", "-c", fillScript, "sh", filler, strconv.FormatInt(v.size, 10)}
		if _, err = c.lxd.exec(ctx, instances[0], nil, append(script, fillerSizes(v.size, leaving)...)...); err != nil {
			return errors.Join(err, v.unfill(ctx))
		}
		return nil
	}
	return cluster.Fault{
		Name:   fmt.Sprintf("volume %s full", v.name),
		Units:  v.units(),
		Inject: func(ctx context.Context) error { return describe(inject(ctx), "cannot fill volume "+v.name) },
		Heal:   func(ctx context.Context) error { return describe(v.unfill(ctx), "cannot empty volume "+v.name) },
	}
}

func (v *volume) unfill(ctx context.Context) error {
	instances, err := v.writableIn(ctx)
	if err != nil {
		return err
	}
	// Some drivers give room back some time after a file is gone, unless told to.
	_, err = v.cluster.lxd.exec(ctx, instances[0], nil, "sh", "-c", `rm -rf "$1" && sync -f "$2"`, "sh", filler, mountPoint)
	return err
}

// fillerSizes are the sizes of files which, made as far as there is room, leave less than
// leaving bytes of a volume free: each half of the one before. Before each there is less
// free than twice its size, and so after it less than its size.
func fillerSizes(volume, leaving int64) []string {
	const least = 4 << 10 // a block
	size := int64(least)
	for size <= volume/2 {
		size *= 2
	}
	sizes := []string{strconv.FormatInt(size, 10)}
	for size > max(leaving, least) {
		size /= 2
		sizes = append(sizes, strconv.FormatInt(size, 10))
	}
	return sizes
}
