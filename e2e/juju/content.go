package juju

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
)

// noFile is the exit status of readScript for a file that is not there.
const noFile = 44

var (
	// readScript prints the file $1.
	readScript = fmt.Sprintf(`test -e "$1" || exit %d; exec cat "$1"`, noFile)
	// writeScript gives the file $2 the content of the file $1, of $3 bytes. What does not
	// change is not touched, not even for a moment, and the file stays the same one.
	writeScript = `dd if="$1" of="$2" bs=1M conv=notrunc status=none && truncate --size="$3" "$2"
failed=$?
rm -f "$1"
exit $failed`
)

// Change edits a file of the volume in place. A program that runs cannot be edited: the
// kernel does not let it be written to.
func (v *volume) Change(ctx context.Context, name string, edit func(content []byte) []byte) error {
	return describe(v.change(ctx, name, edit), fmt.Sprintf("cannot change %s of volume %s", name, v.name))
}

func (v *volume) change(ctx context.Context, name string, edit func(content []byte) []byte) error {
	if !filepath.IsLocal(name) {
		return errors.New("it leads out of the volume")
	}
	c, file := v.cluster, path.Join(mountPoint, name)
	instances, err := v.writableIn(ctx)
	if err != nil {
		return err
	}
	content, err := c.lxd.exec(ctx, instances[0], nil, "sh", "-c", readScript, "sh", file)
	failed := (*exitError)(nil)
	switch {
	case errors.As(err, &failed) && failed.code == noFile:
		content = nil
	case err != nil:
		return err
	case content == nil:
		content = []byte{} // an empty file is one
	}
	there, before := content != nil, bytes.Clone(content)
	content = edit(content)
	switch {
	case content == nil && there:
		_, err = c.lxd.exec(ctx, instances[0], nil, "rm", file)
		return err
	case content == nil, there && bytes.Equal(before, content):
		return nil
	}
	digest := sha256.Sum256(content)
	sum := hex.EncodeToString(digest[:])
	copied := pushedPath("content", sum)
	if err := c.push(ctx, instances[0], bytes.NewReader(content), sum, copied, "0600"); err != nil {
		return err
	}
	_, err = c.lxd.exec(ctx, instances[0], nil, "sh", "-c", writeScript, "sh", copied, file, strconv.Itoa(len(content)))
	return err
}
