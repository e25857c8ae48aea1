package juju

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRedact(t *testing.T) {
	const begin, end = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
	line := strings.Repeat("MIIEpAIBAAKC", 6)[:64]
	body := line + "\n" + line + "\nQ9x=\n"
	digest := strings.Repeat("0123456789abcdef", 4)
	cases := map[string]struct{ text, want string }{
		"a password":                     {"password=hunter22 of admin", "password=[redacted] of admin"},
		"quoted as in JSON":              {`{"p":"a\"b\\c"}`, `{"p":"[redacted]"}`},
		"the longer one first":           {"hunter22-longer", "[redacted]"},
		"lines of a key in a log":        {"10:00 web: abcdefghijkl\n10:00 web: mnopqrstuvwx", "10:00 web: [redacted]\n10:00 web: [redacted]"},
		"a private key":                  {"a\n" + begin + "\n" + body + end + "\nb", "a\n" + begin + "[redacted]" + end + "\nb"},
		"a private key in JSON":          {`"` + begin + `\n` + line + `\n` + end + `\n"`, `"` + begin + "[redacted]" + end + `\n"`},
		"two of them":                    {begin + body + end + " and " + begin + body + end, begin + "[redacted]" + end + " and " + begin + "[redacted]" + end},
		"a key without an end":           {begin + "\n" + line + "\nthe next line", begin + "\n[redacted]\nthe next line"},
		"a key without a begin":          {"before\n" + line + "\n" + end + " after", "before\n[redacted]\n" + end + " after"},
		"one without an end, then whole": {begin + line + " x " + begin + body + end, begin + "[redacted] x " + begin + "[redacted]" + end},
		"a certificate is public":        {"-----BEGIN CERTIFICATE-----\n" + body, "-----BEGIN CERTIFICATE-----\n" + body},
		"a digest is no key":             {digest + "  concourse.tgz", digest + "  concourse.tgz"},
		"too short to be told from text": {"the abc", "the abc"},
	}
	var r redactor
	r.add("hunter22", "hunter22-longer", `a"b\c`, "abc", "", begin+"\nabcdefghijkl\nmnopqrstuvwx\n"+end+"\n")
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, string(r.redact([]byte(tc.text)))) })
	}
}

func TestEvidenceHasNoSecrets(t *testing.T) {
	e := &evidence{dir: t.TempDir(), secrets: &redactor{}}
	e.secrets.add("hunter22")
	e.save("ci-0/journal.log", []byte("login with hunter22"), fmt.Errorf("hunter22 was refused"))
	require.Len(t, e.problems, 2)
	text := readFile(t, e.dir+"/ci-0/journal.log")
	require.Equal(t, "login with [redacted]\n[redacted] was refused\n", text)
}
