package certify

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMountIn(t *testing.T) {
	const table = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
40 22 0:33 / /mnt/a\040b rw,noexec - nfs4 server:/exports/a\040b rw,vers=4.2,local_lock=none
41 22 0:34 / /mnt/old rw - tmpfs one rw
42 22 0:35 / /mnt/old ro - tmpfs two rw
malformed
`
	for path, want := range map[string]string{
		"/":             "ext4 /dev/sda1 rw,relatime rw,errors=remount-ro",
		"/mnt":          "ext4 /dev/sda1 rw,relatime rw,errors=remount-ro",
		"/mnt/a b":      "nfs4 server:/exports/a b rw,noexec rw,vers=4.2,local_lock=none",
		"/mnt/a b/deep": "nfs4 server:/exports/a b rw,noexec rw,vers=4.2,local_lock=none",
		"/mnt/a bc":     "ext4 /dev/sda1 rw,relatime rw,errors=remount-ro",
		"/mnt/old/x":    "tmpfs two ro rw",
	} {
		require.Equal(t, want, mountIn(table, path), path)
	}
	require.Empty(t, mountIn("", "/"))
}
