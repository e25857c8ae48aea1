package suite

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// privateKey is a private key in PEM, whoever's it is.
var privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----`)

// redact returns a text without private keys and without the secrets, which are values by
// what they are. A value is found as it is and as JSON and URLs have it.
func redact(text string, secrets map[string]string) string {
	text = privateKey.ReplaceAllString(text, "[redacted: a private key]")
	// Long ones first: one may be part of another.
	byLength := slices.SortedFunc(maps.Keys(secrets), func(a, b string) int {
		return cmp.Or(len(secrets[b])-len(secrets[a]), strings.Compare(a, b))
	})
	for _, what := range byLength {
		value := secrets[what]
		if value == "" {
			continue
		}
		quoted, _ := json.Marshal(value) // A string can be marshalled.
		for _, form := range []string{value, string(quoted[1 : len(quoted)-1]), url.QueryEscape(value), url.PathEscape(value)} {
			text = strings.ReplaceAll(text, form, "[redacted: "+what+"]")
		}
	}
	return text
}

// redactFolder redacts every file below a folder. One that cannot be read or written is
// removed.
func redactFolder(dir string, secrets map[string]string) error {
	var problems []error
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if err := redactFile(path, secrets); err != nil {
			problems = append(problems, fmt.Errorf("%w; it is removed", err), os.Remove(path))
		}
		return nil
	})
	return errors.Join(append(problems, err)...)
}

func redactFile(path string, secrets map[string]string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot redact evidence: %w", err)
	}
	clean := []byte(redact(string(content), secrets))
	if bytes.Equal(clean, content) {
		return nil
	}
	if err := os.WriteFile(path, clean, 0o644); err != nil {
		return fmt.Errorf("cannot redact evidence: %w", err)
	}
	return nil
}
