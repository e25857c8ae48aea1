package concourse

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

// keyBits is the size of every key: 128 bits of security (NIST SP 800-57).
const keyBits = 3072

// Keys are the secrets that every web unit of an application shares. They live
// in a Juju secret, so that any unit can take over from the first one.
type Keys struct {
	HostKey       string `json:"host_key"`    // PEM
	SigningKey    string `json:"signing_key"` // PEM
	AdminPassword string `json:"admin_password"`
}

// NewKeys makes the keys of a new application.
func NewKeys() (Keys, error) {
	host, err := newPrivateKey()
	if err != nil {
		return Keys{}, fmt.Errorf("make TSA host key: %w", err)
	}
	signing, err := newPrivateKey()
	if err != nil {
		return Keys{}, fmt.Errorf("make session signing key: %w", err)
	}
	password := make([]byte, 16)
	_, _ = rand.Read(password) // it never fails
	return Keys{HostKey: host, SigningKey: signing, AdminPassword: hex.EncodeToString(password)}, nil
}

// Content is the form in which the keys are kept in a Juju secret.
func (k Keys) Content() map[string]string {
	return map[string]string{
		"tsa-host-key":        k.HostKey,
		"session-signing-key": k.SigningKey,
		"admin-password":      k.AdminPassword,
	}
}

// ParseKeys reads what Content returned. A Juju secret may lose the newline at
// the end of a value, which Concourse's PEM parser wants.
func ParseKeys(content map[string]string) (Keys, error) {
	for _, name := range []string{"tsa-host-key", "session-signing-key", "admin-password"} {
		if content[name] == "" {
			return Keys{}, fmt.Errorf("secret with the application's keys has no %s", name)
		}
	}
	return Keys{
		HostKey:       strings.TrimSpace(content["tsa-host-key"]) + "\n",
		SigningKey:    strings.TrimSpace(content["session-signing-key"]) + "\n",
		AdminPassword: content["admin-password"],
	}, nil
}

// Secrets are what nobody but the web server's process may read.
func (w Web) Secrets() []string {
	return append(options.Secrets(w.Options), w.Database.Password, w.Keys.AdminPassword, w.Keys.HostKey, w.Keys.SigningKey)
}

// PublicKey returns the authorized_keys line, without a newline, of a private
// key in PEM.
func PublicKey(private string) (string, error) {
	signer, err := ssh.ParsePrivateKey([]byte(private))
	if err != nil {
		return "", fmt.Errorf("parse private key: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), nil
}

// WorkerKey returns the public half of the key at path, making the key first
// where there is none.
func WorkerKey(path string) (string, error) {
	private, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var made string
		if made, err = newPrivateKey(); err != nil {
			return "", fmt.Errorf("make worker key: %w", err)
		}
		private = []byte(made)
		err = WriteFile(path, made, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("worker key: %w", err)
	}
	return PublicKey(string(private))
}

// newPrivateKey makes a key in the form of `concourse generate-key`: PKCS #1,
// but under the block type that ssh tools give it.
func newPrivateKey() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return "", err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return string(pem.EncodeToMemory(block)), nil
}

// WriteFile replaces a file as a whole. It is created with its mode, so that a
// secret is never readable for a moment, and renamed, so that no reader sees half.
func WriteFile(path, content string, mode fs.FileMode) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err == nil {
		_, err = f.WriteString(content)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
