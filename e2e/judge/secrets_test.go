package judge_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

const keyLine = "MIIG5AIBAAKCAYEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0t"

var secretTables = []table{
	{rule: "no-secret",
		breaks: []row{
			{"a password in the log", func(r *observed) {
				logged(r, 50, "ci/0", "unit.ci/0.juju-log", "env: CONCOURSE_ADD_LOCAL_USER=admin:correct-horse-battery")
			}, "ci/0 has logged a secret (unit.ci/0.juju-log, 03:00:50.000): the admin's password"},
			{"a password of a machine in the log", func(r *observed) {
				machineOf(r, deployed, "ci/0", func(m *observation.Machine) {
					m.Secrets = map[string]string{"CONCOURSE_POSTGRES_PASSWORD": "staple-4711"}
				})
				logged(r, 250, "ci/1", "unit.ci/1.juju-log", "cannot connect as concourse:staple-4711")
			}, "ci/1 has logged a secret (unit.ci/1.juju-log, 03:04:10.000): CONCOURSE_POSTGRES_PASSWORD of ci/0"},
			{"a line of a key in the log", func(r *observed) {
				r.Secrets["the session key"] = "-----BEGIN RSA PRIVATE KEY-----\n" + keyLine + "\n-----END RSA PRIVATE KEY-----\n"
				logged(r, 50, "ci/0", "unit.ci/0.juju-log", `key: "\n`+keyLine+`\n"`)
			}, "the session key"},
			{"a password in a status", func(r *observed) {
				says(r, deployed, "ci/1", "active", "Worker ready (v7.14.2), correct-horse-battery")
			}, `ci/1 at the end of "deployed": the status has a secret: the admin's password`},
			{"a secret that is just long enough", func(r *observed) {
				r.Secrets["the token"] = "8letters"
				logged(r, 50, "ci/0", "unit.ci/0.juju-log", "token=8letters")
			}, "the token"},
			{"a leak on a machine", func(r *observed) {
				machineOf(r, upgraded, "ci/2", func(m *observation.Machine) { m.Leaks = []string{"/proc/12/cmdline: worker_key: private key 1"} })
			}, "ci/2 at the end of \"upgraded\": a secret is where it must not be: /proc/12/cmdline"},
		},
		keeps: []row{
			{"secrets that are empty or short", func(r *observed) {
				r.Secrets = map[string]string{"none": "", "short": "janitor", "lines": "\n\n"}
				logged(r, 50, "ci/0", "unit.ci/0.juju-log", "the user is janitor")
			}, ""},
			{"the frame of a key", func(r *observed) {
				r.Secrets["a key"] = "-----BEGIN RSA PRIVATE KEY-----\n" + keyLine + "\n-----END RSA PRIVATE KEY-----\n"
				logged(r, 50, "ci/0", "unit.ci/0.juju-log", "-----END RSA PRIVATE KEY-----")
			}, ""},
		},
	},
	{rule: "no-private-key",
		breaks: []row{
			{"a key in the log", func(r *observed) {
				logged(r, 50, "ci/0", "unit.ci/0.juju-log", "keys: -----BEGIN OPENSSH PRIVATE KEY-----\\nAAAA")
			}, "ci/0 has logged a private key (unit.ci/0.juju-log, 03:00:50.000)"},
			{"a key of another kind", func(r *observed) {
				logged(r, 50, "machine-1", "juju.worker", "-----BEGIN PRIVATE KEY-----")
			}, "machine-1 has logged a private key"},
			{"a key in a status", func(r *observed) {
				says(r, upgraded, "ci/0", "blocked", "cannot parse -----BEGIN EC PRIVATE KEY-----; run it again")
			}, "ci/0 at the end of \"upgraded\": the status has a private key"},
		},
		keeps: []row{
			{"a public key", func(r *observed) {
				logged(r, 50, "ci/0", "unit.ci/0.juju-log", "-----BEGIN PUBLIC KEY----- of the PRIVATE KEY")
			}, ""},
		},
	},
}

// A report that repeats a secret is a leak of its own.
func TestSecretsAreNotRepeated(t *testing.T) {
	r := sound()
	r.Secrets["the session key"] = keyLine
	logged(r, 50, "ci/0", "unit.ci/0.juju-log", "-----BEGIN RSA PRIVATE KEY----- "+keyLine+" correct-horse-battery")
	says(r, deployed, "ci/1", "active", "Worker ready (v7.14.2), correct-horse-battery")
	for _, rule := range []string{"no-secret", "no-private-key"} {
		for _, v := range judge.Judge(*r, ruleOf(t, rule)) {
			require.NotContains(t, v.Text, "correct-horse-battery")
			require.NotContains(t, v.Text, keyLine)
		}
	}
}
