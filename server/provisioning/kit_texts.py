"""What a kit tells a hospital: instructions, and its settings to fill in."""

from string import Template

from gliofed.shared.kit import Kit, split_address

SITE_YAML = Template("""\
# The hospital's own settings: nothing in this file is sent. Replace each ???; the rest may stay.
# A path is absolute, or relative to this file.

name: "$site"                # as the federation knows this hospital
root: ???                    # folder of the scans
labels: ???                  # what the masks' values mean, one of:
#                              $schemes
patients: null               # the cohort, as [id, id, ...]; null: every patient under root
work: work                   # folder for the cache, the ledger and stored replies; keep it for the whole study
device: auto                 # auto, cpu, cuda or cuda:N
threads: 1                   # PyTorch threads on a CPU
workers: null                # threads that draw training samples ahead; null: 0 on a CPU, 4 on a GPU

# What this hospital accepts. A request beyond it is declined.
policy:
  min_patients: 5            # with fewer training patients there is no training; this is also the default
  complete: false            # whether a case must have every image that a run reads; false: the run decides
  models: null               # names of allowed models, as [unet, lstm_unet]; null: any
  max_steps: null            # most local steps in a round; null: any
  max_parameters: null       # largest model, as 30000000; null: any
  max_step_voxels: null      # most voxels in a step: samples x visits x refinements x patch, as 10000000; null: any
  max_scan_voxels: 64000000  # most voxels of a scan at a run's data.spacing; a cube of 240 mm at 0.6 mm has as many
  max_minutes: 240.0         # longest that one request may take; then it is ended
  metrics: unless_private    # whether losses and Dice may leave: always, unless_private, never
  counts: unless_private     # whether exact numbers of patients may leave: always, unless_private
  count_noise: 10.0          # standard deviation of the noise on a private run's number of patients
  min_validation: 1          # metrics over fewer validation or test patients stay here
  tasks: null                # allowed tasks, as [segmentation]; null: any
  codecs: null               # how an update may travel, as [fp32, fp16]; null: any
  groups: null               # what may leave beside an update, as [control]; []: nothing else; null: any
  mechanisms: null           # allowed privacy mechanisms, as [dp_sgd]; null: any
  min_noise: null            # least noise multiplier of a private run; null: any
  max_readings: 3            # most readings of the data (task, modalities, regions, window, split, spacing)
  max_rounds_a_day: null     # most rounds in 24 hours; null: any
  hours: null                # when requests may arrive, as "20:00-06:00"; null: always
  max_epsilon: null          # ceiling of each patient's epsilon over the whole study; null: none, also without privacy
  delta: null                # delta of that epsilon; null: 0.0001, or 1 / (10 N) if exact numbers leave
  test_mode: false           # whether a run that only pretends to be private may train here

# What scans must be like; gliofed-client check says which are not.
check:
  spacing: [0.2, 10.0]       # shortest and longest voxel edge, mm
  size: [8, 1024]            # fewest and most voxels along an axis
  thick_slice: 4.0           # mm; thicker ones get a warning
  tiny_tumour: 0.1           # cm3; a smaller one gets a warning
  huge_tumour: 400.0         # cm3; a larger one gets a warning
  outlier: 6.0               # robust standard deviations from the cohort; more get a warning
""")


def site_yaml(site: str) -> str:
    """Write a hospital's settings: what it must say is ???, and the rest is what the software takes by itself."""
    from gliofed.shared.data.labels import LABELS

    schemes = ", ".join(name for name in LABELS if name != "mock")
    return SITE_YAML.substitute(site=site, schemes=schemes)


def readme(kit: Kit) -> str:
    """Write the page of instructions for a hospital."""
    host, port = split_address(kit.address)
    return f"""\
# {kit.site} joins {kit.federation}

This kit contains no secret. Scans stay at the hospital; only model updates leave it.

**Network**: one outgoing TCP connection from the training machine, to `{host}` port {port}, encrypted (TLS). Nothing
needs to come in: no open port, no VPN. The clock must be right (NTP).

1. **Install** gliofed on the training machine, then join:

       gliofed-client join KIT.zip --patients N

   N is the most patients that this hospital will ever have in the study, rounded up; the aggregator is told it. The
   command makes the folder `{kit.federation}-{kit.site}`, or DIR with `--into DIR`, with this hospital's key in it,
   `site.key`. The key never leaves the machine, nobody else needs it, and it must not be copied to another machine. Go
   to the folder with the `cd` that join prints: all that follows is done there.
2. **Send** `{kit.site}.request.json` to the aggregator, by e-mail for instance: it contains no secret.
3. **Compare by telephone**, on a number that you knew before: join showed the hash of the whole kit, and the
   fingerprint of this hospital's key. Have the aggregator read out the kit's hash; ten pairs are enough. Read out the
   key's fingerprint to them. If anything differs, somebody may be in between: stop, and do not use the kit. To compare
   before you join, add `--hash HASH` with what they read out.
4. **Fill in** `site.yaml`: the folder of the scans, the masks' scheme, what this hospital accepts. It is never sent.
5. **Check the data**, until it has no errors:

       gliofed-client check data.root=SCANS data.labels=SCHEME work=work

6. **Read and approve the code** that the federation proposes. Only approved code runs here:

       gliofed-client approve .

   It names every file, shows what differs from the code that is installed or was approved before, and asks for the
   first 8 characters of the hash that it shows. `gliofed-client approve . --unpack DIR` writes the files for you to
   read. New code is sent as a file, and approved in the same way: `gliofed-client approve . --code FILE.fab`.
7. **Start**, once the aggregator says that the hospital is admitted:

       gliofed-client start

   As a service, give it a memory limit: `MemoryMax=` with `OOMPolicy=continue` in a systemd unit, `--mem` in a Slurm
   job. gliofed's docs/deploy.md has both, and says how to choose.

Keep the folder, and `work` in it, for the whole study: the ledger there limits the privacy budget of each patient. If
`site.key` is lost or somebody else may have seen it, tell the aggregator at once, and join again into another folder.
"""
