package relations_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

func TestParseDatabase(t *testing.T) {
	secrets := map[string]map[string]string{
		"secret:user": {"username": "relation-1", "password": "p", "uris": "postgresql://..."},
		"secret:tls":  {"tls": "True"},
	}
	for name, test := range map[string]struct {
		settings map[string]string
		want     *concourse.Database
	}{
		"nothing yet": {map[string]string{}, nil},
		"by secrets": {
			map[string]string{"endpoints": "10.0.0.9:6432,10.0.0.8:6432", "secret-user": "secret:user", "secret-tls": "secret:tls", "database": "ci"},
			&concourse.Database{Host: "10.0.0.9", Port: "6432", Name: "ci", User: "relation-1", Password: "p", TLS: true},
		},
		"a secret that cannot be read": {map[string]string{"endpoints": "10.0.0.9:5432", "secret-user": "secret:other"}, nil},
		"by plain settings": {
			map[string]string{"endpoints": "db.example.com", "username": "u", "password": "p", "tls": "false"},
			&concourse.Database{Host: "db.example.com", Port: "5432", Name: "concourse", User: "u", Password: "p"},
		},
		"an IPv6 address": {
			map[string]string{"endpoints": "[fd00::9]:5432", "username": "u", "password": "p"},
			&concourse.Database{Host: "fd00::9", Port: "5432", Name: "concourse", User: "u", Password: "p"},
		},
		"no password": {map[string]string{"endpoints": "10.0.0.9:5432", "username": "u"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, relations.ParseDatabase(test.settings, secrets))
		})
	}
}

func TestRequests(t *testing.T) {
	asked := func(value string) map[string]string { return map[string]string{relations.UpgradeRequest: value} }
	p := relations.Peers{
		App:  map[string]string{relations.Handled("ci/1"): "17 7.14.2"},
		Self: asked("18 7.14.3"),
		Units: map[string]map[string]string{
			"ci/1": asked("17 7.14.2"), // heard
			"ci/2": asked("19 7.14.4"),
			"ci/3": asked("nonsense"),
			"ci/4": nil, // not read
		},
	}
	require.Equal(t, []relations.Request{{"ci/0", "18 7.14.3", "7.14.3"}, {"ci/2", "19 7.14.4", "7.14.4"}}, p.Requests("ci/0"))
}

func TestWorkerKeys(t *testing.T) {
	key := func(k string) map[string]string { return map[string]string{relations.WorkerPublicKey: k} }
	p := relations.Peers{Units: map[string]map[string]string{"ci/1": key("b"), "ci/2": key("a"), "ci/3": {}, "ci/4": key("own")}}
	require.Equal(t, []string{"a", "b", "own"}, p.WorkerKeys("own"))
}
