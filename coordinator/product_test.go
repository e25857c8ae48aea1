package coordinator

// concourse is a product of the tests, in GitHub's layout.
var concourse = Product{
	Name: "Concourse",
	Archive: func(version, arch string) string {
		return "releases/download/v" + version + "/concourse-" + version + "-linux-" + arch + ".tgz"
	},
	Top:         "concourse",
	Executables: []string{"bin/concourse"},
	Link:        "bin",
}

const marker = ".shared"
