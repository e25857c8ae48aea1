package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNameServers(t *testing.T) {
	const stub, upstream = "nameserver 127.0.0.53\noptions edns0\nsearch lxd\n", "nameserver 10.0.3.1\nnameserver fd00::1\nsearch lxd\n"
	for name, test := range map[string]struct {
		resolvConf, resolved string
		want                 string
		known                bool
	}{
		"a stub":                          {stub, upstream, "10.0.3.1,fd00::1", true},
		"a stub by IPv6":                  {"nameserver ::1\n", upstream, "10.0.3.1,fd00::1", true},
		"a stub by IPv4 in IPv6":          {"nameserver ::ffff:127.0.0.1\n", upstream, "10.0.3.1,fd00::1", true},
		"no server":                       {"search lxd\n", upstream, "10.0.3.1,fd00::1", true},
		"a real server":                   {"nameserver 10.0.0.2\n", upstream, "", true},
		"a real server beside a stub":     {stub + "nameserver 10.0.0.2\n", upstream, "", true},
		"a real server in a comment":      {stub + "# nameserver 10.0.0.2\n", upstream, "10.0.3.1,fd00::1", true},
		"a line that Concourse drops":     {"nameserver 10.0.0.2 # office\n", upstream, "10.0.3.1,fd00::1", true},
		"a link's address":                {stub, "nameserver fe80::1%eth0\nnameserver 10.0.3.1\n", "10.0.3.1", true},
		"the same twice":                  {stub, "nameserver 10.0.3.1\nnameserver 10.0.3.1\n", "10.0.3.1", true},
		"a stub before a stub":            {stub, stub, "", false},
		"a stub, and the network is away": {stub, "", "", false},
	} {
		dir := t.TempDir()
		m := Machine{ResolvConf: filepath.Join(dir, "resolv.conf"), Resolved: filepath.Join(dir, "resolved")}
		require.NoError(t, os.WriteFile(m.ResolvConf, []byte(test.resolvConf), 0o644))
		require.NoError(t, os.WriteFile(m.Resolved, []byte(test.resolved), 0o644))
		servers, known := m.nameServers()
		require.Equal(t, test.want, servers, name)
		require.Equal(t, test.known, known, name)
	}
	servers, known := Machine{}.nameServers()
	require.Empty(t, servers)
	require.False(t, known)
}

// As Ubuntu has it: links to files elsewhere, one of which is gone.
func TestCopyCertificates(t *testing.T) {
	from, elsewhere, below := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "certificates")
	require.NoError(t, os.WriteFile(filepath.Join(elsewhere, "ca.crt"), []byte("CA"), 0o600))
	require.NoError(t, os.Symlink(filepath.Join(elsewhere, "ca.crt"), filepath.Join(from, "ca.pem")))
	require.NoError(t, os.Symlink("ca.pem", filepath.Join(from, "12ab.0")))
	require.NoError(t, os.Symlink("gone.pem", filepath.Join(from, "34cd.0")))
	require.NoError(t, os.Mkdir(filepath.Join(from, "java"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(from, "java", "cacerts"), []byte("KEYSTORE"), 0o644))

	first, err := copyCertificates(from, below)
	require.NoError(t, err)
	files := map[string]string{}
	for _, name := range []string{"ca.pem", "12ab.0", "java/cacerts"} {
		path := filepath.Join(first, name)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		info, err := os.Lstat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o644), info.Mode(), "containers run as any user")
		files[name] = string(data)
	}
	require.Equal(t, map[string]string{"ca.pem": "CA", "12ab.0": "CA", "java/cacerts": "KEYSTORE"}, files)
	require.NoFileExists(t, filepath.Join(first, "34cd.0"))

	again, err := copyCertificates(from, below)
	require.NoError(t, err)
	require.Equal(t, first, again, "the same content has one path")
	require.NoError(t, os.WriteFile(filepath.Join(elsewhere, "ca.crt"), []byte("CB"), 0o600))
	other, err := copyCertificates(from, below)
	require.NoError(t, err)
	require.NotEqual(t, first, other, "another content has another path")
	require.DirExists(t, first, "a worker that drains may still need it")
	_, err = copyCertificates(filepath.Join(from, "missing"), below)
	require.Error(t, err)
}
