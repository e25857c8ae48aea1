// Package model holds the protocol by which units share a volume, in small: three
// units, of which any may die at any point and as often as it likes, and a step for
// each access to the volume. Its tests visit every state.
//
// # What the units do
//
// Install: a unit claims a generation with link(2), takes over what a holder before
// it has staged of that version, removes all else that was staged of it, or makes a
// staging tree of its own, downloads, looks whether it still holds the newest
// generation (the fence), moves a corrupt release into its own staging directory and
// from there to quarantine, and publishes by rename. A unit that is short of room
// takes away what others have staged, and moves a corrupt release before the
// download; it looks at the fence before that, too.
//
// Activate: a unit reads the log, holds the release, and puts the next entry if
// nobody has. If somebody has, and another version is current by then, it does
// nothing: the log itself is the fence, and no claim is needed. Then it brings bin in
// line with the log, which is read again after bin is written.
//
// Pin: a unit holds the release, writes its pin, and drops the hold. Activate and Pin
// hold a release as follows: they write a pin for the time of the call, block the
// place of the version in the directory of each collector that they find, and look
// whether the release is there.
//
// Collect: a unit claims, takes away what others have staged, what is in quarantine,
// and the directories of earlier collectors; makes a directory for what it will
// remove; reads the pins, twice; reads current and previous in one look; and renames
// each other release into the directory. A rename to a place that is blocked fails,
// and so does one into a directory that was taken away. So one of the two wins,
// however long the other was paused.
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
// TestProtocol, with any number of deaths; all tests together take 14 s of processor
// time and 320 MB:
//
//	                                        states
//	one version, nobody collects             1,838
//	two versions, nobody collects           47,873
//	one version, which may become corrupt    8,440
//	one version, and collecting             77,851
//	the same, and it may become corrupt    933,861
//	two versions, and collecting         2,102,892
//
// Too many for every day, but visited once: three versions, and collecting, 46,654,608
// states; and with four units one version 8,510, two 394,668, one and collecting
// 3,369,596.
//
// In all of them no generation has two holders, what is published is complete,
// current, previous, pinned and held releases are there, no activation replaces one
// that it was decided without, and any unit gets its version to run with all others
// paused or dead. TestBroken drops one rule at a time and prints the shortest way to
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
//   - A corrupt release must not be moved straight to quarantine. A holder finds it
//     corrupt, and is paused; a later one moves it away and publishes a sound one,
//     which becomes current; the first wakes and moves the sound one away. To move
//     it back is too late: it is missing meanwhile, and for good if the unit dies, or
//     another one empties the quarantine. Moved by way of its own staging directory,
//     which a later holder removes or takes over before it publishes, nothing sound
//     is ever moved.
package model
