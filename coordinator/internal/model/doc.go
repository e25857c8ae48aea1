// Package model holds the protocol by which units share a volume, in small: three
// units, of which any may die at any point and as often as it likes, and a step for
// each access to the volume. Its tests visit every state.
//
// The rules are in rules.go. Package history replays by them what was seen of a volume:
// whatever the model does, it finds nothing (TestReplay), and it finds most of what
// TestBroken breaks.
//
// # What the units do
//
// Install: a unit claims a generation with link(2), in the log of the version; takes over
// what a holder before it has staged, and removes all else that was staged of it, or
// makes a staging directory of its own; downloads; looks whether it still holds the newest
// generation (the fence); renames the staged tree to an entry of the store; and links the
// release to it, with a link that it has made in its staging directory: by link(2) if there
// is none, and, where a corrupt release is to be replaced, by rename.
//
// Activate: a unit reads the log, holds the release, and puts the next entry if
// nobody has. If somebody has, and another version is current by then, it does
// nothing: the log itself is the fence, and no claim is needed. Then it brings bin in
// line with the log, which is read again after bin is written.
//
// Pin: a unit holds the release, writes its pin, and drops the hold. Activate and Pin
// hold a release as follows: they follow its link, write a pin of the entry for the time of
// the call, block the places of the link and of the entry in the directory of each
// collector of the version that they find, and look whether both are there, and the link
// still leads to the entry. If it leads to another one they begin anew.
//
// Collect: a unit claims a version; takes away all that others have staged of it, and the
// directories of earlier collectors; makes a directory for what it will remove; reads the
// pins, twice; reads current and previous in one look; follows the link of the version and
// lists the store; and moves the link, if nobody needs the version, and then the entries
// that nobody needs. It looks at the fence before each move. A move to a place that is
// blocked fails, and so does one into a directory that was taken away. So one of the two
// wins, however long the other was paused.
//
// # What is left out, and why that is sound
//
//   - Time. A contender may find a holder stale whenever it has read the newest
//     generation: the holder may be paused for as long as that takes. Renewing a
//     nonce takes such behaviours away and adds none, and so does a released
//     claim; neither is a step here.
//   - Numbers. Generations and entries are only ever compared with the newest, so a
//     unit keeps no more than whether its own is the last word.
//   - How often units die. A call that fails and a unit that dies leave the same
//     behind, or what only makes others do less: a hold keeps a release, a dead
//     collector's directory is renamed into by nobody, and a staging tree is as
//     good as one made anew. So death is the end of a call, and needs no counting.
//   - Calls that come to nothing. Who has lost its tree, its directory or the race for
//     a name can do no more than fail: its call ends at once. It might
//     have held a release for longer, but that only keeps collectors from more.
//   - What keeps a release for other reasons: it was installed lately, or a dead unit
//     holds it. A collector may leave any release, as it likes.
//   - Names of units. All run the same program: states that differ by a
//     permutation of the units are one.
//   - First looks. Whether a release is there before it is held, and whether there is
//     anything to collect, saves work and decides nothing.
//   - Local steps. A step makes one access to what is shared, and whatever the
//     unit then does on its own. Downloading is local: it ends in the step that
//     looks at the fence. To block a place takes two, of which the second counts.
//     Only to read the pins is no step but takes a while: what changes meanwhile is
//     missed, since neither a listing nor the files in it are read at one moment.
//   - Reports of failure after success. The stat that follows makes both
//     outcomes one; without it they are two steps.
//   - Two calls of one unit at a time: each would need a hold of its own.
//   - Power cuts and bytes: those are tested on file systems.
//
// # What is found
//
// TestProtocol, with any number of deaths; all tests together take about a minute of
// processor time and 600 MB:
//
//	                                        states
//	one version, nobody collects             2,743
//	two versions, nobody collects           86,978
//	one version, which may become corrupt    2,916
//	one version, and collecting it         234,520
//	the same, and it may become corrupt  1,500,318
//	two versions, and collecting the one
//	that was current before              3,977,493
//
// Visited once besides: one version, collecting it and the two others, 9,292,483 states.
//
// In all of them no generation has two holders; what is published is complete; a
// release's path, once there, never goes missing unless it is collected, and never leads to
// nothing; current, previous, pinned and held releases are there; so are entries that were
// replaced while a unit has them pinned or holds them; no activation replaces one that it
// was decided without; and any unit gets its version to run with all others paused or dead. TestBroken drops one rule at a time and prints the shortest way to
// the violation. These results are worth knowing:
//
//   - The fence at publish protects no release, as the rename does: with or
//     without it a published release is complete and never changes (TestSpare).
//     What it gives, together with taking over what others have staged, is an
//     end: once a holder has begun to download, nothing of an older generation
//     is published any more. Neither gives that alone, because a unit can be
//     paused between its look and its rename.
//   - Activate reads the log before it holds the release, so that it is overtaken by
//     whatever happens during its call. The other order is as safe (TestSpare).
//     But whoever is overtaken must not read the log again and go on.
//   - Without the stat after link no unit does harm, but one waits a lease for
//     itself.
//   - A collector that reads the pins once can miss one. Pin changes from hold to pin
//     by writing one name and then removing another: the collector may read the first
//     before, and the second after. During two readings that happens in one of them.
//     What either has seen is kept.
//   - A hold must belong to one call. If two calls of a unit share one, the first that
//     ends takes it from the other.
//   - A collector that renames a release away and then looks whether somebody
//     has pinned it, to put it back, is wrong: the release is missing meanwhile,
//     and for good if the collector dies. So it has to announce, look, and
//     rename to where it can be called off.
//   - A corrupt release must not be removed before another is linked in its place: its
//     path is missing meanwhile, and for good if the unit dies. So its link is replaced.
//   - The link has to be moved from the holder's own staging directory. A holder which
//     slept, and whose entry was collected, would make the release lead to nothing;
//     later holders and collectors take the directory away before they do anything.
//   - For the same reason a collector has to take away what is staged before it lists the
//     store, and has to look at the fence after that: what a later holder has stored, and
//     not yet linked, looks like what nobody needs.
//   - A collector moves the link before the entry. Who pins blocks the places of both.
//   - Pins must name entries: with a pin of the version alone the tree that a unit runs
//     from would be collected after a repair.

package model
