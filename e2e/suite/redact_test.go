package suite

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRedact(t *testing.T) {
	secrets := map[string]string{"the password": `p&"s/w<rd`, "a part": `s/w<`, "nothing": ""}
	quoted, err := json.Marshal(map[string]string{"password": `p&"s/w<rd`})
	require.NoError(t, err)
	for name, test := range map[string]struct{ text, want string }{
		"as it is":    {`login p&"s/w<rd now`, "login [redacted: the password] now"},
		"in JSON":     {string(quoted), `{"password":"[redacted: the password]"}`},
		"in a query":  {"?p=" + url.QueryEscape(`p&"s/w<rd`), "?p=[redacted: the password]"},
		"in a path":   {"/" + url.PathEscape(`p&"s/w<rd`) + "/", "/[redacted: the password]/"},
		"a part":      {"s/w<", "[redacted: a part]"},
		"none":        {"nothing to see", "nothing to see"},
		"private key": {"a\n-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nb", "a\n[redacted: a private key]\nb"},
		"two keys":    {"-----BEGIN PRIVATE KEY-----x-----END PRIVATE KEY----- and -----BEGIN PRIVATE KEY-----y-----END PRIVATE KEY-----", "[redacted: a private key] and [redacted: a private key]"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, redact(test.text, secrets)) })
	}
}

func TestRedactFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "ci-0"), 0o755))
	in, out := filepath.Join(dir, "ci-0", "journal.log"), filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(in, []byte("started with hunter22\n"), 0o644))
	require.NoError(t, os.WriteFile(out, []byte("hunter22"), 0o644))
	require.NoError(t, os.Symlink(out, filepath.Join(dir, "link")))
	require.NoError(t, redactFolder(dir, map[string]string{"password": "hunter22"}))
	content, err := os.ReadFile(in)
	require.NoError(t, err)
	require.Equal(t, "started with [redacted: password]\n", string(content))
	content, err = os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, "hunter22", string(content), "what is linked is not evidence")
}
