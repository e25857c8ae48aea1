package options

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every field has one row of its type, and every row one field: no value can be read under
// a name that Juju does not know.
func TestEachFieldHasOneRow(t *testing.T) {
	var c Config
	rows := map[any]string{}
	for _, o := range Table() {
		field := o.field(&c)
		require.Empty(t, rows[field], "%s has the field of another row", o.Name)
		rows[field] = o.Name
		require.Equal(t, reflect.TypeOf(o.Default), reflect.TypeOf(field).Elem(), o.Name)
	}
	fields := reflect.ValueOf(&c).Elem()
	for i := range fields.NumField() {
		if f := fields.Type().Field(i); f.IsExported() {
			require.NotEmpty(t, rows[fields.Field(i).Addr().Interface()], "%s has no row", f.Name)
		}
	}
}

func TestEachRowIsWhole(t *testing.T) {
	names, variables := map[string]bool{}, map[string]bool{}
	for _, o := range Table() {
		require.False(t, names[o.Name], "%s is there twice", o.Name)
		names[o.Name] = true
		require.Regexp(t, `^[a-z][a-z-]+[a-z]$`, o.Name)
		require.Regexp(t, `(?s)^[A-Z].*\.$`, o.Doc, o.Name)
		require.Contains(t, []Role{Charm, Web, Worker, Both}, o.Role, o.Name)
		if o.Variable == "" {
			require.False(t, o.Derived || o.Since != "", o.Name)
			continue
		}
		require.False(t, variables[o.Variable], "%s is there twice", o.Variable)
		variables[o.Variable] = true
		require.NotEqual(t, Charm, o.Role, "%s is handed on to nobody", o.Name)
	}
	require.Empty(t, Wrong(Default()), "the defaults are fine")
}

// A value that Juju gives under the name of an option reaches its field.
func TestEachOptionIsRead(t *testing.T) {
	for _, o := range Table() {
		var value any
		switch o.Default.(type) {
		case int:
			value = 17
		case bool:
			value = true
		default:
			value = "17m"
		}
		data, err := json.Marshal(map[string]any{o.Name: value, "unknown": 1})
		require.NoError(t, err)
		var c Config
		require.NoError(t, json.Unmarshal(data, &c))
		require.Equal(t, text(value), o.text(c), o.Name)
		changed := 0
		for _, other := range Table() {
			if d := Default(); other.text(c) != other.text(d) {
				changed++
			}
		}
		require.Equal(t, 1, changed, "%s changes its own field only", o.Name)
	}
	require.ErrorContains(t, json.Unmarshal([]byte(`{"web-port": "many"}`), new(Config)), "web-port")
}

func read(c *Config, data string) {
	if err := json.Unmarshal([]byte(data), c); err != nil {
		panic(err)
	}
}

func TestDrainTimeout(t *testing.T) {
	for data, want := range map[string]time.Duration{
		`{}`: time.Hour, `{"drain-timeout": ""}`: time.Hour, `{"drain-timeout": "soon"}`: time.Hour,
		`{"drain-timeout": "1h30m"}`: 90 * time.Minute, `{"drain-timeout": "0s"}`: 0,
	} {
		var c Config
		read(&c, data)
		require.Equal(t, want, c.DrainTimeout, data)
	}
}

func TestText(t *testing.T) {
	for value, want := range map[time.Duration]string{
		time.Hour: "1h", 90 * time.Minute: "1h30m", 30 * time.Minute: "30m", 10 * time.Second: "10s", 0: "0s", 61 * time.Second: "1m1s",
	} {
		require.Equal(t, want, text(value))
	}
}

// No message shows what may hold a password.
func TestSecretsAreNotShown(t *testing.T) {
	for _, o := range Table() {
		if !o.Secret {
			continue
		}
		c := Default()
		*o.field(&c).(*string) = "::s3cret::"
		require.NotEmpty(t, Wrong(c), o.Name)
		require.NotContains(t, strings.Join(Wrong(c), "; "), "s3cret")
	}
}

func TestWrong(t *testing.T) {
	const workDir = "Unusable worker-work-dir %q: use an absolute path such as /mnt/fast, of plain names, outside of the system's directories and of /var/lib/concourse"
	for _, test := range []struct {
		change func(*Config)
		want   string // empty where it is fine
	}{
		{func(c *Config) { c.Mode = "cluster" }, `Unknown mode "cluster": set mode to one of auto, web, all`},
		{func(c *Config) { c.ReleaseURL = "example.com" }, `Malformed release-url "example.com": use the form https://github.com/concourse/concourse`},
		{func(c *Config) { c.ReleaseURL = "https:///o/r" }, `Malformed release-url "https:///o/r": use the form https://github.com/concourse/concourse`},
		{func(c *Config) { c.ReleaseURL = "" }, ""},
		{func(c *Config) { c.ReleaseDigest = "sha256:12" }, `Malformed release-digest "sha256:12": use the form sha256:HEX`},
		{func(c *Config) { c.WebPort = 0 }, "Unusable web-port 0: set web-port to a free port between 1 and 65535 other than 2222"},
		{func(c *Config) { c.WebPort = 65536 }, "Unusable web-port 65536: set web-port to a free port between 1 and 65535 other than 2222"},
		{func(c *Config) { c.WebPort = 8079 }, "Unusable web-port 8079: set web-port to a free port between 1 and 65535 other than 8079"},
		{func(c *Config) { c.Mode, c.WebPort = "web", 8888 }, ""},
		{func(c *Config) { c.Mode, c.WebPort = "all", 8888 }, "Unusable web-port 8888: set web-port to a free port between 1 and 65535 other than 8888"},
		{func(c *Config) { c.ExternalURL = "ci.example.com" }, `Malformed external-url "ci.example.com": use the form https://ci.example.com`},
		{func(c *Config) { c.ExternalURL = "localhost:8080" }, `Malformed external-url "localhost:8080": use the form https://ci.example.com`},
		{func(c *Config) { c.ExternalURL = "https://" }, `Malformed external-url "https://": use the form https://ci.example.com`},
		{func(c *Config) { c.ExternalURL = "ftp://ci" }, `Malformed external-url "ftp://ci": use the form https://ci.example.com`},
		{func(c *Config) { c.ExternalURL = "http://[fd00::1]:8080/" }, ""},
		{func(c *Config) { c.InitialAdminUsername = "a,b" }, `Unusable initial-admin-username "a,b": use letters, digits, dots, dashes and @`},
		{func(c *Config) { c.LogLevel = "warn" }, `Unknown log-level "warn": set log-level to one of debug, info, error, fatal`},
		{func(c *Config) { c.HTTPProxy = "ftp://user:s3cret@proxy" }, "Malformed http-proxy: set http-proxy, or juju-http-proxy of the model, to the form http://proxy.example.com:3128"},
		{func(c *Config) { c.HTTPSProxy = "http://user:s3cret@proxy:port" }, "Malformed https-proxy: set https-proxy, or juju-https-proxy of the model, to the form http://proxy.example.com:3128"},
		{func(c *Config) { c.HTTPProxy, c.HTTPSProxy = "http://u:p@proxy:3128", "socks5://10.0.0.9" }, ""},
		{func(c *Config) { c.NoProxy = "http://example.com" }, `Malformed no-proxy "http://example.com": use hosts, domains and networks with commas between them`},
		{func(c *Config) { c.NoProxy = "example.com 10.0.0.1" }, `Malformed no-proxy "example.com 10.0.0.1": use hosts, domains and networks with commas between them`},
		{func(c *Config) { c.NoProxy = "*, .example.com,10.0.0.0/8,::1" }, ""},
		{func(c *Config) { c.ContainerdDNSServer = "dns.example.com" }, `Unusable containerd-dns-server "dns.example.com": use IP addresses that containers reach, with commas between them`},
		{func(c *Config) { c.ContainerdDNSServer = "10.0.0.2, 127.0.0.53" }, `Unusable containerd-dns-server "10.0.0.2, 127.0.0.53": use IP addresses that containers reach, with commas between them`},
		{func(c *Config) { c.ContainerdDNSServer = "10.0.0.2 10.0.0.3" }, `Unusable containerd-dns-server "10.0.0.2 10.0.0.3": use IP addresses that containers reach, with commas between them`},
		{func(c *Config) { c.ContainerdDNSServer = "fe80::1%eth0" }, `Unusable containerd-dns-server "fe80::1%eth0": use IP addresses that containers reach, with commas between them`},
		{func(c *Config) { c.ContainerdDNSServer = "10.0.0.2,fd00::2" }, ""},
		{func(c *Config) { c.Tag = "big memory" }, `Malformed tag "big memory": use tags without spaces, with commas between them`},
		{func(c *Config) { c.Tag = "gpu, ssd" }, ""},
		{func(c *Config) { c.BaggageclaimDriver = "zfs" }, `Unknown baggageclaim-driver "zfs": set baggageclaim-driver to one of naive, overlay, btrfs, detect`},
		{func(c *Config) { c.BaggageclaimDriver = "" }, ""},
		{func(c *Config) { c.WorkerWorkDir = "/mnt/fast" }, ""},
		{func(c *Config) { c.WorkerWorkDir = "/srv/ci_1/w.d" }, ""},
		{func(c *Config) { c.WorkerWorkDir = "/var/lib/fast" }, ""},
		{func(c *Config) { c.WorkerWorkDir = "/var/lib/concourse-fast" }, ""},
		{func(c *Config) { c.WorkerWorkDir = "/usrlocal" }, ""},
		{func(c *Config) { c.WorkerWorkDir = "" }, ""},
		{func(c *Config) { c.WorkerWorkDir = "mnt/fast" }, fmt.Sprintf(workDir, "mnt/fast")},
		{func(c *Config) { c.WorkerWorkDir = "/" }, fmt.Sprintf(workDir, "/")},
		{func(c *Config) { c.WorkerWorkDir = "/mnt/fast/" }, fmt.Sprintf(workDir, "/mnt/fast/")},
		{func(c *Config) { c.WorkerWorkDir = "/mnt//fast" }, fmt.Sprintf(workDir, "/mnt//fast")},
		{func(c *Config) { c.WorkerWorkDir = "/mnt/../etc/x" }, fmt.Sprintf(workDir, "/mnt/../etc/x")},
		{func(c *Config) { c.WorkerWorkDir = "/mnt/./fast" }, fmt.Sprintf(workDir, "/mnt/./fast")},
		{func(c *Config) { c.WorkerWorkDir = "/etc" }, fmt.Sprintf(workDir, "/etc")},
		{func(c *Config) { c.WorkerWorkDir = "/usr/local/ci" }, fmt.Sprintf(workDir, "/usr/local/ci")},
		{func(c *Config) { c.WorkerWorkDir = "/tmp/ci" }, fmt.Sprintf(workDir, "/tmp/ci")},
		{func(c *Config) { c.WorkerWorkDir = "/var" }, fmt.Sprintf(workDir, "/var")},
		{func(c *Config) { c.WorkerWorkDir = "/var/lib" }, fmt.Sprintf(workDir, "/var/lib")},
		{func(c *Config) { c.WorkerWorkDir = "/var/lib/concourse" }, fmt.Sprintf(workDir, "/var/lib/concourse")},
		{func(c *Config) { c.WorkerWorkDir = "/var/lib/concourse/worker" }, fmt.Sprintf(workDir, "/var/lib/concourse/worker")},
		{func(c *Config) { c.WorkerWorkDir = "/var/lib/concourse-ci-machine/x" }, fmt.Sprintf(workDir, "/var/lib/concourse-ci-machine/x")},
		{func(c *Config) { c.WorkerWorkDir = "/mnt/a b" }, fmt.Sprintf(workDir, "/mnt/a b")},
		{func(c *Config) { c.WorkerWorkDir = "/mnt/a:b" }, fmt.Sprintf(workDir, "/mnt/a:b")},
		{func(c *Config) { c.WorkerWorkDir = "/mnt/a,b" }, fmt.Sprintf(workDir, "/mnt/a,b")},
		{func(c *Config) { c.WorkerWorkDir = "/mnt/fast\n" }, fmt.Sprintf(workDir, "/mnt/fast\n")},
		{func(c *Config) { c.ExtraEnv = "hunter2" }, "Malformed extra-env: use the form NAME=VALUE, one a line"},
		{func(c *Config) { c.ExtraEnv = "A=hunter2,PATH=/x,CONCOURSE_TAG=t,HTTP_PROXY=p,CONCOURSE_GARDEN_BIN=b" },
			"Unusable extra-env: take out PATH, CONCOURSE_TAG, HTTP_PROXY, CONCOURSE_GARDEN_BIN, which the charm or another option sets"},
		{func(c *Config) { c.ExtraEnv = "CONCOURSE_ENABLE_ACROSS_STEP=true" }, ""},
		{func(c *Config) { read(c, `{"drain-timeout": "soon"}`) }, `Malformed drain-timeout "soon": use the form 30m or 1h30m`},
		{func(c *Config) { read(c, `{"drain-timeout": "-1h"}`) }, `Malformed drain-timeout "-1h": use the form 30m or 1h30m`},
		{func(c *Config) { read(c, `{"drain-timeout": "0s"}`) }, ""},
	} {
		c := Default()
		test.change(&c)
		if test.want == "" {
			require.Empty(t, Wrong(c))
			continue
		}
		require.Equal(t, []string{test.want}, Wrong(c))
	}
}

// In mode auto the unit that takes over runs the web server beside its worker, which has
// these ports: the web server could not listen, and no unit could ever take over.
func TestPortsOfAWorkerInModeAuto(t *testing.T) {
	for _, port := range []int{7776, 7777, 7787, 7788, 8888} {
		c := Default()
		c.WebPort = port
		require.NotEmpty(t, Wrong(c), "mode %s, web-port %d", c.Mode, port)
	}
}
