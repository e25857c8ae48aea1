package relations

import (
	"cmp"
	"maps"
	"net"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// DatabaseEndpoint is the name of the relation with PostgreSQL.
const DatabaseEndpoint = "postgresql"

const databaseName = "concourse"

// DatabaseRequest is what the leader asks the database for.
func DatabaseRequest() map[string]string {
	return map[string]string{
		"database":          databaseName,
		"requested-secrets": `["username","password","tls","tls-ca","uris"]`,
	}
}

// ParseDatabase reads what the database's application has given, with the contents of
// the secrets that it names, by their ids. It returns nil for settings that are not
// complete yet.
func ParseDatabase(settings map[string]string, secrets map[string]map[string]string) *concourse.Database {
	settings = maps.Clone(settings)
	for _, name := range []string{"secret-user", "secret-tls"} {
		for _, key := range []string{"username", "password", "tls"} {
			if value := secrets[settings[name]][key]; value != "" {
				settings[key] = value
			}
		}
	}
	endpoint, _, _ := strings.Cut(settings["endpoints"], ",")
	if endpoint == "" || settings["username"] == "" || settings["password"] == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		host, port = endpoint, "5432"
	}
	return &concourse.Database{
		Host: host, Port: port, Name: cmp.Or(settings["database"], databaseName),
		User: settings["username"], Password: settings["password"],
		TLS: strings.EqualFold(settings["tls"], "true"),
	}
}
